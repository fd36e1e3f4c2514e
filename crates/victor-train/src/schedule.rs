//! Linear warm-up, then half a cosine down to zero (transformers' `cosine` schedule).

use std::f64::consts::PI;

/// The share of the learning rate each step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    warmup: usize,
    total: usize,
}

impl Schedule {
    /// `total` steps, of which `warmup_ratio` (rounded up) warm up.
    pub fn new(total: usize, warmup_ratio: f64) -> Self {
        Self {
            warmup: (total as f64 * warmup_ratio).ceil() as usize,
            total,
        }
    }

    /// The factor in 0 ..= 1 of step `step`, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            // Counted from one: a first step of zero would be no step.
            return (step + 1) as f64 / self.warmup as f64;
        }
        let rest = self.total.saturating_sub(self.warmup).max(1);
        let progress = (step - self.warmup) as f64 / rest as f64;
        0.5 * (1.0 + (PI * progress.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_one_and_falls_towards_zero() {
        let schedule = Schedule::new(100, 0.03);
        assert_eq!(schedule.factor(0), 1.0 / 3.0);
        assert_eq!(schedule.factor(2), 1.0);
        assert_eq!(schedule.factor(3), 1.0);
        assert!((3..99).all(|step| schedule.factor(step) >= schedule.factor(step + 1)));
        assert!(schedule.factor(99) < 1e-3);
        assert_eq!(schedule.factor(100), 0.0);
    }

    #[test]
    fn no_warm_up_starts_at_one() {
        assert_eq!(Schedule::new(10, 0.0).factor(0), 1.0);
        assert_eq!(Schedule::new(0, 0.0).factor(0), 1.0);
    }
}
