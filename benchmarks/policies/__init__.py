"""`make sim`: all policies on a fixed grid of simulated settings, judged against stated targets."""
