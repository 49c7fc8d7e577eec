"""The ordered steps that bring a topology about, and the plan that holds them."""
