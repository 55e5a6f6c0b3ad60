"""What is measured: losslessness, speed, acceptance, quality."""
