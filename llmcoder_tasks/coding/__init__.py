"""From a phrase or a whole note to codes with evidence and confidence."""
