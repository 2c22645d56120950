package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// listing is a page of the list of models.
type listing struct {
	ids         string
	more        bool
	first, last string
}

func (r *rig) models(query string) (listing, answer) {
	r.t.Helper()
	got := r.do(r.request("GET", "/v1/models"+query, ""))
	var page struct {
		Data    []struct{ ID string }
		HasMore bool    `json:"has_more"`
		FirstID *string `json:"first_id"`
		LastID  *string `json:"last_id"`
	}
	if got.status == 200 {
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || page.Data == nil {
			r.t.Fatalf("%v: %s", err, got.body)
		}
	}
	l := listing{more: page.HasMore}
	for _, m := range page.Data {
		l.ids = strings.TrimSpace(l.ids + " " + m.ID)
	}
	if page.FirstID != nil && page.LastID != nil {
		l.first, l.last = *page.FirstID, *page.LastID
	}
	return l, got
}

// The list of models comes in pages, as the API has them.
func TestModelsComeInPages(t *testing.T) {
	const known = 25
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		var models []string
		for i := range known {
			models = append(models, fmt.Sprintf(`{"type":"model","id":"m%02d"}`, i))
		}
		_, _ = io.WriteString(w, `{"data":[`+strings.Join(models, ",")+`],"has_more":false}`)
	}, nil)
	span := func(from, to int) string {
		var ids []string
		for i := from; i <= to; i++ {
			ids = append(ids, fmt.Sprintf("m%02d", i))
		}
		return strings.Join(ids, " ")
	}
	for query, want := range map[string]listing{
		"":                           {span(0, 19), true, "m00", "m19"},
		"?limit=1000":                {span(0, 24), false, "m00", "m24"},
		"?limit=25":                  {span(0, 24), false, "m00", "m24"},
		"?limit=24":                  {span(0, 23), true, "m00", "m23"},
		"?limit=1":                   {"m00", true, "m00", "m00"},
		"?after_id=m19":              {span(20, 24), false, "m20", "m24"},
		"?after_id=M19&limit=2":      {span(20, 21), true, "m20", "m21"},
		"?after_id=m24":              {"", false, "", ""},
		"?before_id=m20":             {span(0, 19), false, "m00", "m19"},
		"?before_id=m20&limit=3":     {span(17, 19), true, "m17", "m19"},
		"?before_id=m03&limit=3":     {span(0, 2), false, "m00", "m02"},
		"?before_id=m00":             {"", false, "", ""},
		"?beta=true&limit=3&unknown": {span(0, 2), true, "m00", "m02"},
	} {
		if got, raw := r.models(query); got != want {
			t.Errorf("%s: %d %+v, want %+v", query, raw.status, got, want)
		}
	}
	for query, says := range map[string]string{
		"?limit=0":                   "limit: Input should be between 1 and 1000",
		"?limit=1001":                "limit: Input should be between 1 and 1000",
		"?limit=many":                "limit: Input should be a valid integer",
		"?after_id=m1&before_id=m2":  "Only one of",
		"?after_id=nowhere":          "after_id: nowhere is no model of this list",
		"?before_id=nowhere&limit=2": "before_id: nowhere is no model of this list",
		"?limit=%zz":                 "The query cannot be read",
	} {
		_, got := r.models(query)
		if kind, message := errorOf(t, got); got.status != 400 || kind != "invalid_request_error" || !strings.Contains(message, says) {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
	// From page to page everything comes once.
	all, after := "", ""
	for range known {
		page, _ := r.models("?limit=7" + after)
		all = strings.TrimSpace(all + " " + page.ids)
		if after = "&after_id=" + page.last; !page.more {
			break
		}
	}
	if all != span(0, known-1) {
		t.Errorf("page by page: %s", all)
	}
}

// What people ask for with curl ends its line, and is exactly as long as it says.
func TestOwnAnswersEndTheirLine(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"m"}]}`)
	}, nil)
	for _, path := range []string{"/v1/user", "/v1/usage", "/v1/models", "/v1/models/m"} {
		got := r.do(r.request("GET", path, ""))
		if got.status != 200 || strings.Count(got.body, "\n") != 1 || !strings.HasSuffix(got.body, "}\n") || got.header.Get("Content-Length") != fmt.Sprint(len(got.body)) {
			t.Errorf("%s: %d, length %s, %q", path, got.status, got.header.Get("Content-Length"), got.body)
		}
		if head := r.do(r.request("HEAD", path, "")); head.body != "" || head.header.Get("Content-Length") != got.header.Get("Content-Length") {
			t.Errorf("HEAD %s: length %s, %q", path, head.header.Get("Content-Length"), head.body)
		}
	}
}
