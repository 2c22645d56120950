package sim

import (
	"net/http"
)

// apiError is an error answer in the API's envelope.
type apiError struct {
	Status  int
	Type    string
	Message string
	Header  map[string]string
}

func invalid(message string) *apiError {
	return &apiError{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: message}
}

func notFound(message string) *apiError {
	return &apiError{Status: http.StatusNotFound, Type: "not_found_error", Message: message}
}

func unauthorized(message string) *apiError {
	return &apiError{Status: http.StatusUnauthorized, Type: "authentication_error", Message: message}
}

type errorBody struct {
	Type      string      `json:"type"`
	Error     errorDetail `json:"error"`
	RequestID string      `json:"request_id,omitzero"`
}

type errorDetail struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// statusError returns the API's error type and message for a status.
func statusError(status int) (kind, message string) {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error", "invalid x-api-key"
	case http.StatusPaymentRequired:
		return "billing_error", "Your organization's payment method has failed. Please update it in the Console."
	case http.StatusForbidden:
		return "permission_error", "Your API key does not have permission to use the specified resource."
	case http.StatusNotFound:
		return "not_found_error", "Not Found"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large", "Request exceeds the maximum size"
	case http.StatusTooManyRequests:
		return "rate_limit_error", "This request would exceed your organization's rate limit. Please try again later."
	case http.StatusServiceUnavailable:
		return "api_error", "Service temporarily unavailable"
	case http.StatusGatewayTimeout:
		return "timeout_error", "The request timed out. Please try again."
	case 529:
		return "overloaded_error", "Overloaded"
	}
	if status >= 500 {
		return "api_error", "Internal server error"
	}
	return "invalid_request_error", "Error"
}
