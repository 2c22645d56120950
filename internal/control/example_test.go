package control_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"carpool/internal/control"
	"carpool/internal/policy"
)

// A change through the admin API is in the document that nodes get.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// alice-laptop belongs to alice
	// version 3 knows 1 key
}

func example(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "carpool")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	master, err := control.LoadMasterKey(filepath.Join(folder, "master.key"), rand.Reader)
	if err != nil {
		return err
	}
	c, err := control.Open(ctx, control.Options{
		StorePath: filepath.Join(folder, "control.db"), MasterKey: master,
		Settings:       policy.Settings{TimeZone: "UTC", Formula: policy.DefaultFormula()},
		DefaultQuota:   policy.Quota{Daily: policy.Unlimited, Monthly: policy.Unlimited},
		BootstrapToken: policy.NewSecret("cpa_from_the_configuration"),
		Now:            time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	server := httptest.NewServer(c.Handler())
	defer server.Close()

	client, err := control.NewClient(control.ClientOptions{URL: server.URL, Token: "cpa_from_the_configuration"})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.CreateUser(ctx, policy.UserSpec{Name: "alice"}); err != nil {
		return err
	}
	key, err := client.CreateKey(ctx, policy.KeySpec{Name: "alice-laptop", User: "alice"}) // key.Secret is shown this once
	if err != nil {
		return err
	}
	document, err := c.Link("node-1").Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	fmt.Printf("%s belongs to %s\nversion %d knows %d key\n", key.Name, key.User, document.Version, len(document.Keys))
	return nil
}
