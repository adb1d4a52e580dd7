"""Speech in, batches out: audio, features, augmentation, manifests, tokens, synthetic speech, word error rate."""
