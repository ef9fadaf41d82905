package catalogue

// planned are plugins that people look for, and that are not there because what
// they would stand on is not. They are listed so that nobody has to guess, and
// none of them pretends to be one: Open refuses them.
func planned() []Item {
	return []Item{
		{
			Name:    "incident-response-plugin",
			Summary: "Incidents with their evidence, timeline and tasks",
			Planned: "it needs incidents, which mobileops does not keep yet",
		},
		{
			Name:    "rbac-plugin",
			Summary: "Say who may run which commands, and who has to agree",
			Planned: "it needs accounts and roles, which mobileops does not have yet",
		},
		{
			Name:    "siem-plugin",
			Summary: "Find attacks in collected logs by rules, and raise alerts",
			Planned: "it needs detection in logs, which mobileops does not do yet",
		},
		{
			Name:    "threat-intelligence-plugin",
			Summary: "Look for the indicators of threat feeds on this host",
			Planned: "it needs threat feeds, which mobileops does not keep yet",
		},
	}
}
