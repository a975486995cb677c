# Asio as a CMake package, like those of vcpkg and Conan.
find_path(asio_INCLUDE_DIR asio.hpp)
add_library(asio::asio INTERFACE IMPORTED)
target_include_directories(asio::asio INTERFACE ${asio_INCLUDE_DIR})
