package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

func Example() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "carpool")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	l, err := ledger.Open(ctx, filepath.Join(folder, "ledger.db"), ledger.Options{Node: "edge-1"})
	if err != nil {
		panic(err)
	}
	defer l.Close()

	ask := func(id string) (*ledger.Exchange, error) {
		return l.Reserve(ctx, ledger.Opening{
			Entry:  ledger.Entry{ID: id, User: "alice", Endpoint: ledger.EndpointMessages},
			Tokens: 600, InputEstimate: 100, Daily: 1000, Monthly: policy.Unlimited, Formula: policy.DefaultFormula(),
		})
	}
	exchange, err := ask("first")
	if err != nil {
		panic(err)
	}
	_, err = ask("second")
	if denied, ok := errors.AsType[*ledger.Denied](err); ok {
		fmt.Println(denied.Window, "quota: temporary", denied.Temporary)
	}
	final := exchange.Entry()
	final.Outcome, final.InputTokens, final.OutputTokens = fleet.OutcomeFinished, 110, 90
	if err := exchange.Settle(final); err != nil {
		panic(err)
	}
	fmt.Println(l.QuotaState("alice", 1000, policy.Unlimited, nil).Daily.Used)
	// Output:
	// daily quota: temporary true
	// 200
}
