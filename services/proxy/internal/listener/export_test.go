package listener

// Place is what the manager does with a configuration that comes into use.
var Place = (*Config).place
