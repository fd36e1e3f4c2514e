//! Names of devices, and the one place where cargo features decide what is compiled in.

use crate::{DeviceError, VictorBackend};
use std::fmt;
use std::str::FromStr;

#[cfg(feature = "flex")]
#[path = "flex/mod.rs"]
mod flex;

/// Where a model runs. `cpu` is another name of [`Device::Flex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The CPU through burn-flex.
    Flex,
    /// The CPU through burn-ndarray: a second opinion, several times slower.
    NdArray,
    /// The best GPU through WebGPU's native API.
    Wgpu,
    /// The best GPU through Vulkan.
    Vulkan,
    /// An Apple GPU through Metal.
    Metal,
    /// The n-th NVIDIA GPU.
    Cuda(usize),
}

/// A computation that can run on any backend.
pub trait DeviceTask {
    /// What it returns.
    type Output;

    /// Runs on `device` of backend `B`.
    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output;
}

impl Device {
    /// The devices this binary was built for, the preferred one first.
    pub fn compiled() -> Vec<Device> {
        let mut devices = Vec::new();
        if cfg!(feature = "cuda") {
            devices.push(Device::Cuda(0));
        }
        if cfg!(feature = "metal") {
            devices.push(Device::Metal);
        }
        if cfg!(feature = "vulkan") {
            devices.push(Device::Vulkan);
        }
        if cfg!(feature = "wgpu") {
            devices.push(Device::Wgpu);
        }
        if cfg!(feature = "flex") {
            devices.push(Device::Flex);
        }
        if cfg!(feature = "ndarray") {
            devices.push(Device::NdArray);
        }
        devices
    }

    /// The GPU backend compiled in, else flex. Never ndarray, which is there to check the others.
    ///
    /// # Errors
    /// If neither a GPU backend nor flex was compiled in.
    pub fn best() -> Result<Device, DeviceError> {
        let preferred = Device::compiled()
            .into_iter()
            .find(|device| *device != Device::NdArray);
        preferred.ok_or(DeviceError::NoBackend)
    }

    /// Runs a task on this device.
    ///
    /// # Errors
    /// If the device's backend was not compiled in, or its hardware does not start.
    pub fn run<T: DeviceTask>(self, task: T) -> Result<T::Output, DeviceError> {
        match self {
            #[cfg(feature = "flex")]
            Device::Flex => Ok(task.run::<burn_flex::Flex>(Default::default())),
            #[cfg(feature = "ndarray")]
            Device::NdArray => Ok(task.run::<burn_ndarray::NdArray>(Default::default())),
            #[cfg(feature = "wgpu")]
            Device::Wgpu => {
                let start = gpu::<burn_wgpu::graphics::AutoGraphicsApi>;
                Ok(task.run::<Gpu>(self.started::<Gpu>(start)?))
            }
            #[cfg(feature = "vulkan")]
            Device::Vulkan => {
                let start = gpu::<burn_wgpu::graphics::Vulkan>;
                Ok(task.run::<Gpu>(self.started::<Gpu>(start)?))
            }
            #[cfg(feature = "metal")]
            Device::Metal => {
                let start = gpu::<burn_wgpu::graphics::Metal>;
                Ok(task.run::<Gpu>(self.started::<Gpu>(start)?))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let start = || burn_cuda::CudaDevice::new(index);
                Ok(task.run::<burn_cuda::Cuda>(self.started::<burn_cuda::Cuda>(start)?))
            }
            #[allow(unreachable_patterns, reason = "reached unless every feature is on")]
            device => {
                drop(task);
                Err(device.not_compiled())
            }
        }
    }

    /// Starts a device once, so that a missing GPU or driver is an error and not a panic.
    #[allow(dead_code, reason = "only GPU backends can be absent")]
    fn started<B: VictorBackend>(
        self,
        device: impl FnOnce() -> B::Device,
    ) -> Result<B::Device, DeviceError> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let device = device();
            let one = burn::tensor::Tensor::<B, 1>::ones([1], &device);
            drop(one.into_data());
            device
        }));
        std::panic::set_hook(hook);
        started.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            DeviceError::Unavailable {
                device: self,
                reason: text.unwrap_or_else(|| "no usable GPU or driver".into()),
            }
        })
    }

    fn not_compiled(self) -> DeviceError {
        let available = Device::compiled()
            .iter()
            .map(Device::to_string)
            .collect::<Vec<_>>();
        DeviceError::NotCompiled {
            device: self,
            feature: self.feature(),
            available: if available.is_empty() {
                "none".into()
            } else {
                available.join(", ")
            },
        }
    }

    /// The cargo feature that compiles this device in.
    pub fn feature(self) -> &'static str {
        match self {
            Device::Flex => "flex",
            Device::NdArray => "ndarray",
            Device::Wgpu => "wgpu",
            Device::Vulkan => "vulkan",
            Device::Metal => "metal",
            Device::Cuda(_) => "cuda",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            device => f.write_str(device.feature()),
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    /// Reads a name; refuses a device this binary was not built for.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => {
                let index = index.parse::<usize>();
                (
                    kind,
                    Some(index.map_err(|_| DeviceError::Index { name: name.into() })?),
                )
            }
            None => (name, None),
        };
        let device = match kind {
            "flex" | "cpu" => Device::Flex,
            "ndarray" => Device::NdArray,
            "wgpu" => Device::Wgpu,
            "vulkan" => Device::Vulkan,
            "metal" => Device::Metal,
            "cuda" => Device::Cuda(index.unwrap_or(0)),
            _ => return Err(DeviceError::Unknown { name: name.into() }),
        };
        if index.is_some() && !matches!(device, Device::Cuda(_)) {
            return Err(DeviceError::Index { name: name.into() });
        }
        if !Device::compiled()
            .iter()
            .any(|known| known.feature() == device.feature())
        {
            return Err(device.not_compiled());
        }
        Ok(device)
    }
}

#[cfg(feature = "ndarray")]
impl VictorBackend for burn_ndarray::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cubecl {
    use crate::VictorBackend;
    use burn::tensor::backend::Backend;
    use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
    use burn_fusion::{Fusion, FusionBackend};

    impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> VictorBackend
        for CubeBackend<R, F, I, BT>
    where
        CubeBackend<R, F, I, BT>: Backend,
    {
    }

    impl<B: FusionBackend> VictorBackend for Fusion<B> {}
}

#[cfg(feature = "wgpu")]
type Gpu = burn_wgpu::Wgpu<f32, i32, u32>;

/// The default device, set up once with the asked-for graphics API.
#[cfg(feature = "wgpu")]
fn gpu<G: burn_wgpu::graphics::GraphicsApi>() -> burn_wgpu::WgpuDevice {
    static SETUP: std::sync::Once = std::sync::Once::new();
    let device = burn_wgpu::WgpuDevice::DefaultDevice;
    SETUP.call_once(|| {
        burn_wgpu::init_setup::<G>(&device, Default::default());
    });
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for device in Device::compiled() {
            assert_eq!(
                device.to_string().parse::<Device>().expect("compiled in"),
                device
            );
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn cpu_is_flex() {
        assert_eq!("cpu".parse::<Device>().expect("compiled in"), Device::Flex);
    }

    #[test]
    #[cfg(not(feature = "metal"))]
    fn a_missing_backend_names_its_feature() {
        let error = "metal"
            .parse::<Device>()
            .expect_err("not compiled in")
            .to_string();
        assert!(error.contains("--features metal"), "{error}");
    }

    #[test]
    fn bad_names_and_indices_are_refused() {
        assert!(matches!(
            "gpu".parse::<Device>(),
            Err(DeviceError::Unknown { .. })
        ));
        assert!(matches!(
            "cuda:x".parse::<Device>(),
            Err(DeviceError::Index { .. })
        ));
        assert!(matches!(
            "flex:1".parse::<Device>(),
            Err(DeviceError::Index { .. })
        ));
    }
}
