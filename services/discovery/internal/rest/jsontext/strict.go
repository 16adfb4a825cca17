package jsontext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxDepth is how deep arrays and objects may lie in each other. Readers give
// up at different depths, some at a hundred.
const maxDepth = 32

// CheckValue returns an error if some readers could not take a JSON value, or
// would take it for another than others do: objects with a name twice, integers
// that no int64 holds, of which Envoys that read REST v1 refuse all of a list,
// other numbers that no float64 holds, and values in each other more than maxDepth
// deep. value must be JSON.
func CheckValue(value []byte) error {
	switch value[0] {
	case '"', 't', 'f', 'n':
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var open []container
	for {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("cannot be read: %w", err)
		}
		if number, is := token.(json.Number); is {
			if err := checkNumber(string(number)); err != nil {
				return err
			}
		}
		delimiter, isDelimiter := token.(json.Delim)
		switch {
		case isDelimiter && (delimiter == '}' || delimiter == ']'):
			open = open[:len(open)-1]
		case len(open) > 0 && open[len(open)-1].wantsName:
			top := &open[len(open)-1]
			name, _ := token.(string) // what else stands here
			if top.names[name] {
				return fmt.Errorf("holds an object that has %q twice", name)
			}
			top.names[name], top.wantsName = true, false
			continue // to the value of that name
		case isDelimiter:
			if len(open) == maxDepth {
				return fmt.Errorf("holds values in each other more than %d deep", maxDepth)
			}
			open = append(open, newContainer(delimiter))
			continue
		}
		if len(open) == 0 {
			return nil
		}
		top := &open[len(open)-1]
		top.wantsName = top.names != nil
	}
}

// checkNumber returns an error if a number is one that not all readers can hold.
func checkNumber(text string) error {
	var err error
	if strings.ContainsAny(text, ".eE") {
		_, err = strconv.ParseFloat(text, 64)
	} else {
		_, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("holds %.40s, which is beyond signed numbers of 64 bits", text)
	}
	return nil
}

// container is an array or object that has been begun.
type container struct {
	names     map[string]bool // nil in an array
	wantsName bool
}

func newContainer(opened json.Delim) container {
	if opened == '[' {
		return container{}
	}
	return container{map[string]bool{}, true}
}
