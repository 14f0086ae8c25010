"""Distillation: what a student learns from a teacher, besides what its labels say."""
