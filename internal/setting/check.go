package setting

import "cmp"

// AtLeast reports a variable whose value is below least, such as a duration that forgot
// its unit. Fault takes what fmt.Errorf does, here and below.
func AtLeast[T cmp.Ordered](name string, value, least T, fault func(format string, args ...any)) {
	if value < least {
		fault("%v: below %v", Variable(name, value), least)
	}
}

// Within reports a variable whose value is below least or above most.
func Within[T cmp.Ordered](name string, value, least, most T, fault func(format string, args ...any)) {
	AtLeast(name, value, least, fault)
	if value > most {
		fault("%v: above %v", Variable(name, value), most)
	}
}

// Positive reports a variable whose value is 0 or below.
func Positive[T cmp.Ordered](name string, value T, fault func(format string, args ...any)) {
	var zero T
	if value <= zero {
		fault("%v: not above 0", Variable(name, value))
	}
}

// Share reports a variable whose value is no share of a whole.
func Share(name string, value float64, fault func(format string, args ...any)) {
	if !(value >= 0 && value <= 1) { // nor not a number
		fault("%v: not from 0 to 1", Variable(name, value))
	}
}

// Port reports a variable whose value is no port; 0 is any free one.
func Port(name string, value int, fault func(format string, args ...any)) {
	if value < 0 || value > 65535 {
		fault("%v: not a port", Variable(name, value))
	}
}
