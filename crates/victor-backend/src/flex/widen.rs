//! Numbers as weights store them, f32, f16 or bf16, on their way into f32 vectors.
//!
//! Written with the machine's own vectors, AVX-512 or AVX2 with F16C on x86 and what the compiler makes
//! of arrays elsewhere: left to itself the compiler keeps sums in memory and widens halves one by one.

use half::{bf16, f16};

/// Numbers of a vector.
pub(super) const LANES: usize = 16;

/// A number type that weights are stored in.
pub(super) trait Stored: Copy + Send + Sync {
    /// The same number, exactly.
    fn wide(self) -> f32;

    /// The numbers themselves, if they are f32 already.
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

/// A computation on stored numbers; everything it calls must be inlined.
pub(super) trait Kernel<T> {
    fn run<V: Vector<T>>(self);
}

/// [`LANES`] f32, and how stored numbers become them.
pub(super) trait Vector<T>: Copy {
    fn zero() -> Self;
    fn load(numbers: &[f32; LANES]) -> Self;
    fn widen(stored: &[T; LANES]) -> Self;
    /// `self + a · b`
    fn add_product(self, a: Self, b: Self) -> Self;
    fn numbers(self) -> [f32; LANES];
}

/// Types that every kind of vector can be widened from.
pub(super) trait Widened: Stored {
    /// Runs `kernel` with the widest vectors found at run time.
    fn dispatch<K: Kernel<Self>>(kernel: K);
}

impl Stored for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    fn as_f32(stored: &[Self]) -> Option<&[f32]> {
        Some(stored)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        /// From the exponent's bias of f16 to that of f32.
        const BIAS: u32 = (127 - 15) << 23;
        let bits = u32::from(self.to_bits());
        let sign = (bits & 0x8000) << 16;
        let magnitude = (bits & 0x7fff) << 13;
        let normal = magnitude + BIAS;
        // Infinities and numbers that are none keep the largest exponent.
        let special = normal + BIAS;
        // Below the normal numbers the exponent is that of the smallest, without its leading one.
        let leading = BIAS + (1 << 23);
        let tiny = (f32::from_bits(magnitude + leading) - f32::from_bits(leading)).to_bits();
        let number = if magnitude < 1 << 23 { tiny } else { normal };
        let number = if magnitude >= 0x1f << 23 {
            special
        } else {
            number
        };
        f32::from_bits(sign | number)
    }
}

impl<T: Stored> Vector<T> for [f32; LANES] {
    #[inline(always)]
    fn zero() -> Self {
        [0.0; LANES]
    }

    #[inline(always)]
    fn load(numbers: &[f32; LANES]) -> Self {
        *numbers
    }

    #[inline(always)]
    fn widen(stored: &[T; LANES]) -> Self {
        stored.map(T::wide)
    }

    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for lane in 0..LANES {
            self[lane] += a[lane] * b[lane];
        }
        self
    }

    #[inline(always)]
    fn numbers(self) -> [f32; LANES] {
        self
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl<T: Stored> Widened for T {
    fn dispatch<K: Kernel<Self>>(kernel: K) {
        kernel.run::<[f32; LANES]>();
    }
}

#[cfg(target_arch = "x86_64")]
impl<T: Stored> Widened for T
where
    x86::Wide: Vector<T>,
    x86::Pair: Vector<T>,
{
    fn dispatch<K: Kernel<Self>>(kernel: K) {
        x86::dispatch(kernel);
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(
    unsafe_code,
    reason = "instructions beyond the target's own are looked for at run time"
)]
pub(super) mod x86 {
    use super::{Kernel, LANES, Stored, Vector};
    use half::{bf16, f16};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// Runs the kernel on the widest vectors there are.
    pub(super) fn dispatch<T: Stored, K: Kernel<T>>(kernel: K)
    where
        Wide: Vector<T>,
        Pair: Vector<T>,
    {
        let pair = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let wide = pair && is_x86_feature_detected!("avx512f");
        if wide {
            // SAFETY: the features were found.
            unsafe { avx512(kernel) }
        } else if pair {
            // SAFETY: the features were found.
            unsafe { avx2(kernel) }
        } else {
            kernel.run::<[f32; LANES]>();
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    fn avx512<T, K: Kernel<T>>(kernel: K)
    where
        Wide: Vector<T>,
    {
        kernel.run::<Wide>();
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<T, K: Kernel<T>>(kernel: K)
    where
        Pair: Vector<T>,
    {
        kernel.run::<Pair>();
    }

    /// A vector of AVX-512, named by [`avx512`] alone.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide(__m512);

    /// Two vectors of AVX2, named by [`avx2`] alone.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Pair([__m256; 2]);

    /// A vector type of this machine: all but widening is the same for every stored type.
    ///
    /// In all of them: the instructions are there, because only a function that enables them runs a
    /// kernel with the type, and both sides of a transmutation are as many plain numbers.
    macro_rules! vector {
        ($stored:ty, $whole:ty, $widen_wide:expr, $part:ty, $widen_pair:expr) => {
            impl Vector<$stored> for Wide {
                #[inline(always)]
                fn zero() -> Self {
                    // SAFETY: see above.
                    Self(unsafe { _mm512_setzero_ps() })
                }

                #[inline(always)]
                fn load(numbers: &[f32; LANES]) -> Self {
                    // SAFETY: see above.
                    Self(unsafe { transmute::<[f32; LANES], __m512>(*numbers) })
                }

                #[inline(always)]
                fn widen(stored: &[$stored; LANES]) -> Self {
                    // SAFETY: see above.
                    Self(unsafe { $widen_wide(transmute::<[$stored; LANES], $whole>(*stored)) })
                }

                #[inline(always)]
                fn add_product(self, a: Self, b: Self) -> Self {
                    // SAFETY: see above.
                    Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
                }

                #[inline(always)]
                fn numbers(self) -> [f32; LANES] {
                    // SAFETY: see above.
                    unsafe { transmute(self.0) }
                }
            }

            impl Vector<$stored> for Pair {
                #[inline(always)]
                fn zero() -> Self {
                    // SAFETY: see above.
                    Self(unsafe { [_mm256_setzero_ps(); 2] })
                }

                #[inline(always)]
                fn load(numbers: &[f32; LANES]) -> Self {
                    // SAFETY: see above.
                    Self(unsafe { transmute::<[f32; LANES], [__m256; 2]>(*numbers) })
                }

                #[inline(always)]
                fn widen(stored: &[$stored; LANES]) -> Self {
                    // SAFETY: see above.
                    Self(unsafe {
                        let [low, high] = transmute::<[$stored; LANES], [$part; 2]>(*stored);
                        [$widen_pair(low), $widen_pair(high)]
                    })
                }

                #[inline(always)]
                fn add_product(self, a: Self, b: Self) -> Self {
                    let ([low, high], [a_low, a_high], [b_low, b_high]) = (self.0, a.0, b.0);
                    // SAFETY: see above.
                    Self(unsafe {
                        [
                            _mm256_fmadd_ps(a_low, b_low, low),
                            _mm256_fmadd_ps(a_high, b_high, high),
                        ]
                    })
                }

                #[inline(always)]
                fn numbers(self) -> [f32; LANES] {
                    // SAFETY: see above.
                    unsafe { transmute(self.0) }
                }
            }
        };
    }

    vector!(f32, __m512, |x| x, __m256, |x| x);
    vector!(f16, __m256i, |x| _mm512_cvtph_ps(x), __m128i, |x| {
        _mm256_cvtph_ps(x)
    });
    // The upper half of an f32.
    vector!(
        bf16,
        __m256i,
        |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x))),
        __m128i,
        |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All<'a, T> {
        stored: &'a [T],
        wide: &'a mut Vec<f32>,
    }

    impl<T: Copy> Kernel<T> for All<'_, T> {
        #[inline(always)]
        fn run<V: Vector<T>>(self) {
            for block in self.stored.as_chunks::<LANES>().0 {
                self.wide.extend(V::widen(block).numbers());
            }
        }
    }

    /// Every number there is, with the machine's vectors and with arrays.
    fn check<T: Widened>(from_bits: impl Fn(u16) -> T, expected: impl Fn(T) -> f32) {
        let stored: Vec<T> = (0..=u16::MAX).map(from_bits).collect();
        let (mut found, mut portable) = (Vec::new(), Vec::new());
        T::dispatch(All {
            stored: &stored,
            wide: &mut found,
        });
        All {
            stored: &stored,
            wide: &mut portable,
        }
        .run::<[f32; LANES]>();
        for (index, stored) in stored.iter().enumerate() {
            let expected = expected(*stored);
            for found in [found[index], portable[index]] {
                let same = found.to_bits() == expected.to_bits();
                let none = found.is_nan() && expected.is_nan();
                assert!(same || none, "{index:#x}: {found} {expected}");
            }
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        check(f16::from_bits, f16::to_f32);
        check(bf16::from_bits, bf16::to_f32);
    }
}
