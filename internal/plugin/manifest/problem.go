package manifest

// report takes a problem with what stands at a path of the document, such as
// "commands[0].name".
type report func(where, format string, args ...any)

// join makes the path of a key beneath a path.
func join(where, key string) string {
	if where == "" {
		return key
	}
	return where + "." + key
}
