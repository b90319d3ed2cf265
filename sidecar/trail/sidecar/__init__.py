"""The sidecar process: lifecycle in, frames in, predictions and ranks out."""
