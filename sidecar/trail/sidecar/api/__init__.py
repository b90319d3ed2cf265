"""The sidecar's gRPC services: the engine's stream, policies, observation, ranks without a board.
Called by gRPC's threads; what they hear goes to the loop through its inbox.
"""
