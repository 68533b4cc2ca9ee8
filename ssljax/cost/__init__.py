"""What a program costs before it runs: operations, memory, and bytes on the wires, against what a chip has."""
