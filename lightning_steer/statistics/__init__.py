"""The only home of intervals, resampling, the jackknife and certificates; needs numpy and scipy only."""
