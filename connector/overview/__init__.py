"""The whole at a glance, for those who look at it: `status`, `top` and the page."""
