"""What a person writes: the study file, validated with pydantic."""
