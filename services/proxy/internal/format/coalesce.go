package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// coalesceName is the operator that is the first of some others whose value is known; it
// may be empty, as in Envoy 1.40.
const coalesceName = "COALESCE"

// coalesce makes COALESCE({"operators": [...]}), of which each is a name, or an object
// with command, param and max_length.
func coalesce(argument string, length int) (operator, error) {
	var given struct {
		Operators []json.RawMessage `json:"operators"`
	}
	if err := decode([]byte(argument), &given); err != nil {
		return operator{}, fmt.Errorf("COALESCE(%s): %w", argument, err)
	}
	var choices []operator
	for i, text := range given.Operators {
		op, err := choice(text, length)
		if err != nil {
			return operator{}, fmt.Errorf("COALESCE: operators[%d]: %w", i, err)
		}
		choices = append(choices, op)
	}
	if len(choices) == 0 {
		return operator{}, fmt.Errorf("COALESCE(%s): there are no operators", argument)
	}
	first := func(write func(*operator, []byte, *Facts) ([]byte, bool)) func([]byte, *Facts) ([]byte, bool) {
		return func(b []byte, f *Facts) ([]byte, bool) {
			for i := range choices {
				if made, known := write(&choices[i], b, f); known {
					return made, true
				}
			}
			return b, false
		}
	}
	return operator{write: first((*operator).value), json: first((*operator).typed), foreign: true, most: length}, nil
}

// choice makes one of the operators, whose text has that length at most; −1 is any.
func choice(text []byte, length int) (operator, error) {
	var given struct {
		Command string  `json:"command"`
		Param   *string `json:"param"`
		Most    *int    `json:"max_length"`
	}
	if text[0] == '"' {
		if err := json.Unmarshal(text, &given.Command); err != nil {
			return operator{}, err
		}
	} else if err := decode(text, &given); err != nil {
		return operator{}, err
	}
	own, param := -1, ""
	if given.Most != nil {
		if own = *given.Most; own <= 0 {
			return operator{}, fmt.Errorf("max_length %d is not positive", own)
		}
	}
	if given.Param != nil {
		param = *given.Param
	}
	op, err := newOperator(given.Command, param, given.Param != nil, own)
	if length >= 0 && (op.most < 0 || op.most > length) {
		op.most = length
	}
	return op, err
}

// decode reads a JSON object that has nothing but the fields of v.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows the JSON")
	}
	return nil
}
