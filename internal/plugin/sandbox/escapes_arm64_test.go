package sandbox

// escapesHere go around the filter by other ways into the kernel.
func escapesHere() []escape { return nil }
