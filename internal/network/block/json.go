package block

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deep a document may be nested.
const maxDepth = 32

// addressMembers are the members of objects that hold addresses, in feeds that
// are in use: Spamhaus DROP, abuse.ch, AWS, GCP, STIX 2.
var addressMembers = map[string]bool{
	"ip": true, "cidr": true, "ip_address": true, "ipaddress": true, "address": true, "addr": true, "network": true, "prefix": true, "range": true, "subnet": true,
	"ip_prefix": true, "ipv6_prefix": true, "ipv4prefix": true, "ipv6prefix": true, "dst_ip": true, "src_ip": true, "ipv4": true, "ipv6": true, "indicator": true,
}

// json reads one document or many. Strings of lists, and members of objects with
// one of the names above, are addresses.
func (p *parsed) json(in *bufio.Reader) error {
	lineByLine, err := jsonLines(in)
	if err != nil {
		return err
	}
	if !lineByLine {
		d := json.NewDecoder(in)
		for {
			if err := p.jsonValue(d, "", 0); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return fmt.Errorf("%w: byte %d: %w", ErrNoFeed, d.InputOffset(), err)
			}
		}
	}
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		for over := false; errors.Is(err, bufio.ErrBufferFull); over = true {
			if !over {
				p.refuse(n, string(line[:80]), fmt.Sprintf("longer than %d bytes", MaxLine))
			}
			_, err = in.ReadSlice('\n')
			line = nil
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			if bad := p.jsonValue(json.NewDecoder(bytes.NewReader(line)), "", 0); bad != nil {
				if errors.Is(bad, ErrNoFeed) {
					return bad
				}
				p.refuse(n, string(line), bad.Error())
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// jsonLines tells whether the first line is a document of its own.
func jsonLines(in *bufio.Reader) (bool, error) {
	head, err := in.Peek(MaxLine)
	if err != nil && err != io.EOF {
		return false, err
	}
	line, _, whole := bytes.Cut(head, []byte("\n"))
	return whole && bytes.HasPrefix(bytes.TrimSpace(line), []byte("{")) && json.Valid(line), nil
}

// jsonValue reads a value that is the member of an object, or in a list that is.
func (p *parsed) jsonValue(d *json.Decoder, member string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: it is nested deeper than %d", ErrNoFeed, maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch v := token.(type) {
	case string:
		p.jsonString(d, member, v)
	case json.Delim:
		for d.More() {
			name := member
			if v == '{' {
				key, err := d.Token()
				if err != nil {
					return err
				}
				name = strings.ToLower(fmt.Sprint(key))
			} else if depth == 0 {
				name = "ip" // a list of nothing but addresses
			}
			if err := p.jsonValue(d, name, depth+1); errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			} else if err != nil {
				return err
			}
			if p.entries > MaxEntries {
				return fmt.Errorf("%w: it has more than %d entries", ErrNoFeed, MaxEntries)
			}
		}
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
	}
	return err
}

func (p *parsed) jsonString(d *json.Decoder, member, s string) {
	if member == "pattern" {
		p.stixPattern(s)
		return
	}
	if !addressMembers[member] {
		return
	}
	if r, err := parseRange(s); err == nil {
		p.take(r)
		return
	}
	// Members of these names hold other things as well.
	if member == "ip" || member == "cidr" {
		p.refuse(int(d.InputOffset()), s, "no address, network or range (line is the byte in the document)")
	}
}

// stixPattern takes addresses out of a pattern of STIX 2.1:
// [ipv4-addr:value = '192.0.2.7'].
func (p *parsed) stixPattern(s string) {
	for _, name := range []string{"ipv4-addr:value", "ipv6-addr:value"} {
		rest := s
		for {
			_, after, ok := strings.Cut(rest, name)
			if !ok {
				break
			}
			rest = after
			value, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(after), "=")), "'")
			if value, _, closed := strings.Cut(value, "'"); ok && closed {
				if r, err := parseRange(value); err == nil {
					p.take(r)
				}
			}
		}
	}
}
