"""Open-loop benchmark: several scheduling arms on identical requests, one after another."""
