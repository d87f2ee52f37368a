"""Other ways to the same network, each in its usual idiom, with the same images, batches and epochs.

Each file runs alone: `python -m benchmarks.peers.eager hidden=128 epochs=1 root=<folder with MNIST/raw>`.
"""
