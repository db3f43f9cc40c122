"""One block through the members; ensemble; fitting; arrays in memory."""
