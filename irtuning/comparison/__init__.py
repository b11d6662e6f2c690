"""Many runs: which runs a comparison needs, and the workers that make them."""
