"""All intervals, resampling, the jackknife and certificates; depends only on numpy and scipy."""
