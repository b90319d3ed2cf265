"""`python -m benchmarks`: the experiments; each is a command of its own."""

EXPERIMENTS = (
    ("peak --loads 1.3x", "What does TRAIL gain under a load peak on real vLLM?", "41 min"),
    ("overhead", "What does it cost the engine?", "20 min"),
    ("drill", "What becomes of requests when the sidecar dies or hangs?", "13 min"),
    ("observe", "Is every request traced whole, from client to schedule?", ""),
    ("observe.collectors", "What do slow and dead collectors cost?", ""),
    ("observe.cost", "What does tracing every request cost?", "14 min"),
    ("predictors.suite", "How good are predictions, against the paper's and the floor?", "2.5 h"),
    ("predictors.probe_speed", "How long does a prediction take?", ""),
    ("drift", "Is a bad probe found, and a good one left alone?", "4 min"),
    ("policies", "Which policy serves which load best, in the simulator?", "94 min"),
    ("control", "How far is the controller of c from the best constant c?", "28 min"),
    ("closed_form.verify", "Does the closed form agree with its queue?", ""),
    ("fidelity", "Does the simulator find what real vLLM does?", "32 min"),
    ("fidelity.shadow_check", "Is the gain that shadow mode estimates the gain that comes?", "6 min"),
    ("scale.load_check --idle 10 --steady 30 --latency 30", "What does the operator cost at size?", "70 min"),
    ("scale.loop_check", "Does the loop on c hold, with real Redis?", "7 min"),
)
"""Command, question, and how long it took on two cores when last measured."""


def main() -> None:
    """Prints them."""
    for command, question, took in EXPERIMENTS:
        print(f"{question}\n    {f'python -m benchmarks.{command}':<76}{took}")
    print("Each says more with --help.")


if __name__ == "__main__":
    main()
