//! Weights in memory as a checkpoint that can be opened, converted or run.

use puna_core::{
    DType, ModelConfig, SharedBytes, SourceError, Tensor, TensorInfo, TensorSource, WeightId,
};
use puna_train::Layout;

/// A network's weights as they are trained, in f32.
#[derive(Debug)]
pub(crate) struct TrainedWeights<'a> {
    /// Its layout.
    pub layout: &'a Layout,
    /// In that layout.
    pub weights: &'a [f32],
}

impl TensorSource for TrainedWeights<'_> {
    fn config(&self) -> &ModelConfig {
        self.layout.config()
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        let (id, _) = self.layout.spans().iter().find(|(other, _)| *other == id)?;
        Some(TensorInfo { dtype: DType::F32, shape: id.shape(self.layout.config()) })
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        let info = self.info(id).ok_or_else(|| SourceError {
            file: "memory".to_owned(),
            tensor: id.to_string(),
            message: "missing".to_owned(),
        })?;
        let floats = &self.weights[self.layout.span(id)];
        let data = floats.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        Ok(Tensor { info, data: SharedBytes::new(data) })
    }

    fn copies(&self, _: WeightId) -> bool {
        true
    }
}
