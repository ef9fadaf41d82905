package host

import "testing"

// TestWhatIsNoMessage looks at what a plugin is told of JSON that is not taken:
// nothing of how this program keeps it.
func TestWhatIsNoMessage(t *testing.T) {
	for line, want := range map[string]string{
		`{"id":-1,"method":"x"}`:  `it is not a message: "id": what is there (of type number) it cannot be`,
		`{"id":1e3,"method":"x"}`: `it is not a message: "id": what is there (of type number) it cannot be`,
		`{"id":1,"method":[]}`:    `it is not a message: "method": what is there (of type array) it cannot be`,
	} {
		if _, err := parse([]byte(line)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	var p struct {
		Limit int `json:"limit"`
	}
	for params, want := range map[string]string{
		`[]`:                               "parameters: they are of type array, not an object (invalid)",
		`{"limit":"a"}`:                    `parameters: "limit": what is there (of type string) it cannot be (invalid)`,
		`{"limit":9999999999999999999999}`: `parameters: "limit": what is there (of type number) it cannot be (invalid)`,
	} {
		if err := decode([]byte(params), &p); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", params, err, want)
		}
	}
}
