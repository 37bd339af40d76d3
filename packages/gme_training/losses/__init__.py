"""From a global batch to this rank's gradients: InfoNCE over unique candidates, distillation, the gradient cache."""
