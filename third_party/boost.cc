// Boost.Asio, Beast and JSON are compiled once, here; everywhere else only their headers are read.
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
#include <boost/json/src.hpp>
