"""The operator of TRAIL for Kubernetes: injection into vLLM pods, TrailPolicy, the loop on c."""
