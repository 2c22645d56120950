package config_test

import (
	"fmt"

	"carpool/internal/config"
)

func ExampleLoad() {
	c, err := config.Load(config.Options{
		File:      "testdata/production.json",
		Env:       []string{"CARPOOL_SERVER_PORT=9000"},
		Overrides: []config.Override{{Key: "server.host", Value: "127.0.0.1", Source: "--listen"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Node.Name, c.Server.Address(), *c.ClaudeCode.DefaultQuota.Daily)
	// Output: claude-code-edge-01 127.0.0.1:9000 50000
}

func ExampleProblems() {
	_, err := config.Load(config.Options{Env: []string{"CARPOOL_SERVER_PORT=eighty", "CARPOOL_LOG_LEVEL=inof"}})
	fmt.Println(err)
	// Output:
	// CARPOOL_SERVER_PORT: server.port: expected a whole number, found the text "eighty"
	// CARPOOL_LOG_LEVEL: log.level: must be one of debug, info, warn, error; found "inof" (did you mean "info"?)
}
