package segment

import "bytes"

// Class of a byte, for splitting a record.
type class uint8

const (
	letter    class = iota // part of a token
	joint                  // part of a token, and may end its constant prefix: _ - . #
	digit                  // part of a token, and makes it a variable
	reserved               // as digit: the bytes that stand for places in templates
	delimiter              // between tokens
)

// Places in a template. Records that have these bytes have them in variables.
const (
	placeVariable = 0x00
	placeTime     = 0x01 // followed by the number of the layout
	placeAddress  = 0x02 // a variable that is an IPv4 address
)

// classes is the class of every byte.
var classes = classTable()

func classTable() (t [256]class) {
	for c := range 0x20 {
		t[c] = delimiter
	}
	for _, c := range []byte(" []()=,;\"'<>{}|:/@\x7f") {
		t[c] = delimiter
	}
	for _, c := range []byte("_-.#") {
		t[c] = joint
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = digit
	}
	t[placeVariable], t[placeTime], t[placeAddress] = reserved, reserved, reserved
	return t
}

// hexLetter says of a letter whether it may be a digit of a hexadecimal number.
func hexLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'f' }

// value is where a variable lies in a record.
type value struct{ from, to int }

// split appends the template of raw to key and where its variables lie to vals.
// stamp is where the time lies, written in the layout at; none if its end is 0.
func split(raw []byte, stamp value, at layoutID, key []byte, vals []value) ([]byte, []value) {
	if stamp.to > 0 {
		key, vals = splitText(raw, 0, stamp.from, key, vals)
		key = append(key, placeTime, byte(at))
		return splitText(raw, stamp.to, len(raw), key, vals)
	}
	return splitText(raw, 0, len(raw), key, vals)
}

func splitText(raw []byte, from, to int, key []byte, vals []value) ([]byte, []value) {
	for i := from; i < to; {
		if classes[raw[i]] == delimiter {
			key = append(key, raw[i])
			i++
			continue
		}
		start, prefix, variable, word := i, i, false, false
		for ; i < to; i++ {
			c := classes[raw[i]]
			if c == delimiter {
				break
			}
			if variable {
				continue
			}
			switch {
			case c == digit || c == reserved:
				variable = true
			case c == joint:
				if word {
					prefix = i + 1
				}
			case !hexLetter(raw[i]):
				// Without a letter that no hexadecimal number has, what looks
				// like a prefix may be the beginning of a hash.
				word = true
			}
		}
		if !variable {
			key = append(key, raw[start:i]...)
			continue
		}
		key = append(key, raw[start:prefix]...)
		place := byte(placeVariable)
		if isAddress(raw[prefix:i]) {
			place = placeAddress
		}
		key = append(key, place)
		vals = append(vals, value{prefix, i})
	}
	return key, vals
}

// variables returns how many places for variables a template has; ok is false
// if it is none.
func variables(key []byte) (n int, ok bool) {
	for {
		at := bytes.IndexByte(key, placeTime)
		part := key
		if at >= 0 {
			part = key[:at]
		}
		n += bytes.Count(part, []byte{placeVariable}) + bytes.Count(part, []byte{placeAddress})
		if at < 0 {
			return n, true
		}
		if at+1 >= len(key) || key[at+1] == 0 || int(key[at+1]) >= len(layouts) {
			return 0, false
		}
		key = key[at+2:]
	}
}
