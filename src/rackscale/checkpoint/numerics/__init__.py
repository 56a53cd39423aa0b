"""What the formats' codes and scales are in numbers, and how matrices are rounded to them. Loads torch."""
