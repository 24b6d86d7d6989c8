"""What a thief who knows about the defence does with the answers."""
