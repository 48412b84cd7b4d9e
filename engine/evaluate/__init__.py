"""DVH, indices, clinical goals and gamma."""
