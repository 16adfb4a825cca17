package resources

// Asker is what of a client decides what it is shown: what its node says of it.
type Asker struct {
	ID, Cluster  string
	Region, Zone string
}

// View is that part of an Asker that makes a difference: askers of equal views
// share resources. It is empty where nothing makes one.
type View string
