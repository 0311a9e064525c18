// A request that a model works for, as the server sees it that wants to end some.
#pragma once

#include <vector>

#include "api/error.h"

namespace pensieve::gateway {

/// Thread-safety: the io thread only.
class RunningRequest {
 public:
  virtual ~RunningRequest() = default;

  /// Ends the request with `error` as soon as it can: at its next event, or when its model is
  /// there. What the worker does for it ends at once, also where the client is slow to read.
  virtual void end_early(const api::ApiError& error) = 0;
  virtual bool ends_early() const = 0;
};

/// Keeps a request listed for as long as it lives, on every way out.
class Listed {
 public:
  Listed(std::vector<RunningRequest*>& list, RunningRequest& request)
      : list_(list), request_(&request) {
    list_.push_back(request_);
  }
  ~Listed() { std::erase(list_, request_); }
  Listed(const Listed&) = delete;
  Listed& operator=(const Listed&) = delete;

 private:
  std::vector<RunningRequest*>& list_;
  RunningRequest* request_;
};

}  // namespace pensieve::gateway
