package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"
)

// A column type here is a pointer to a field that serves both ways, as a query's argument and as a scan's destination,
// so that a table's fields are listed once.

// appendValues appends what fields hold, as a query's arguments. database/sql takes the fields themselves too, and spends
// more on finding out what they are.
func appendValues(args, fields []any) ([]any, error) {
	for _, field := range fields {
		switch f := field.(type) {
		case *string:
			args = append(args, *f)
		case *int64:
			args = append(args, *f)
		case *int:
			args = append(args, int64(*f))
		case *bool:
			args = append(args, *f)
		case driver.Valuer:
			value, err := f.Value()
			if err != nil {
				return nil, err
			}
			args = append(args, value)
		default:
			return nil, fmt.Errorf("a field of an entry must not be %T", field)
		}
	}
	return args, nil
}

// instant is a time as microseconds UTC.
type instant struct{ at *time.Time }

func (c instant) Value() (driver.Value, error) { return c.at.UnixMicro(), nil }

func (c instant) Scan(src any) error {
	micros, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a time must be a number of microseconds, not %T", src)
	}
	*c.at = time.UnixMicro(micros).UTC()
	return nil
}

// maybeInstant is a time that may be absent.
type maybeInstant struct{ at **time.Time }

func (c maybeInstant) Value() (driver.Value, error) {
	if *c.at == nil {
		return nil, nil
	}
	return (*c.at).UnixMicro(), nil
}

func (c maybeInstant) Scan(src any) error {
	if src == nil {
		*c.at = nil
		return nil
	}
	*c.at = new(time.Time)
	return instant{*c.at}.Scan(src)
}

// encoded is any value as JSON; the zero value is the empty string.
type encoded[T any] struct{ value *T }

func (c encoded[T]) Value() (driver.Value, error) {
	data, err := json.Marshal(c.value)
	if err != nil || string(data) == "null" {
		return "", err
	}
	return string(data), nil
}

func (c encoded[T]) Scan(src any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("JSON must be text, not %T", src)
	}
	if text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), c.value)
}

// reported is JSON as somebody else said it: what is none is left out when it is read.
type reported struct{ text *json.RawMessage }

func (c reported) Value() (driver.Value, error) { return string(*c.text), nil }

func (c reported) Scan(src any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("JSON must be text, not %T", src)
	}
	if json.Valid([]byte(text)) {
		*c.text = json.RawMessage(text)
	}
	return nil
}

// optional is a text where NULL is the empty string.
type optional struct{ text *string }

func (c optional) Value() (driver.Value, error) {
	if *c.text == "" {
		return nil, nil
	}
	return *c.text, nil
}

func (c optional) Scan(src any) error {
	switch src := src.(type) {
	case nil:
		*c.text = ""
	case string:
		*c.text = src
	default:
		return fmt.Errorf("a text must be text, not %T", src)
	}
	return nil
}
