// An HTTP server that says what a test wrote down, piece by piece, on a port of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/http_client.h"

namespace pensieve::cli {

/// Answers each connection with the next of its scripted answers and keeps the requests. Ends, and
/// refuses connections from then on, when the answers are used up.
class FakeServer {
 public:
  /// The pieces of one raw answer; each is written in a call of its own. After the last the
  /// connection is closed.
  using Answer = std::vector<std::string>;

  /// A piece that is not written: the server waits until the client has closed the connection and
  /// notes that as one more request, "closed by the client".
  static constexpr const char* kHold = "<hold>";

  explicit FakeServer(std::vector<Answer> answers);
  ~FakeServer();

  Endpoint endpoint() const;

  /// Requests as they came, header and body. REQUIRES: all answers were asked for.
  std::vector<std::string> requests();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A whole answer with a JSON body.
FakeServer::Answer json_answer(unsigned status, const std::string& body);

/// A 200 answer of server-sent events, each piece one chunk of the chunked encoding.
FakeServer::Answer sse_answer(const std::vector<std::string>& pieces);

}  // namespace pensieve::cli
