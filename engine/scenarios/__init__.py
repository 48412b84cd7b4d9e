"""What may go wrong: setup shifts and density scaling, with probabilities."""
