"""The app that Flower bundles and runs; it imports the workload from the repository."""
