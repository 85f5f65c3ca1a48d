"""The embedded default: sample digits, a demo model and preprocessing presets."""
