//! Cut, flipped, swapped and deleted.
