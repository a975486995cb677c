# Cross-compiles for 64-bit Windows with MinGW-w64 GCC, in its POSIX-threads variant (std::thread needs it).
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
find_program(CMAKE_CXX_COMPILER NAMES x86_64-w64-mingw32-g++-posix x86_64-w64-mingw32-g++ REQUIRED)
set(CMAKE_CROSSCOMPILING_EMULATOR ${CMAKE_CURRENT_LIST_DIR}/wine.sh)  # runs the tests

# Programs run alone, without the compiler's DLLs.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

# Header-only libraries come from the host. Its include folder as a whole would bring the host's C library, so they are
# staged in a separate root.
set(stage ${CMAKE_BINARY_DIR}/host-headers)
get_property(in_try_compile GLOBAL PROPERTY IN_TRY_COMPILE)
if(NOT in_try_compile)
  file(MAKE_DIRECTORY ${stage}/include ${stage}/share/cmake)
  foreach(header IN ITEMS asio asio.hpp catch2 CLI fmt spdlog)
    if(EXISTS /usr/include/${header} AND NOT EXISTS ${stage}/include/${header})
      file(CREATE_LINK /usr/include/${header} ${stage}/include/${header} SYMBOLIC)
    endif()
  endforeach()
  if(EXISTS /usr/share/cmake/CLI11 AND NOT EXISTS ${stage}/share/cmake/CLI11)
    file(COPY /usr/share/cmake/CLI11 DESTINATION ${stage}/share/cmake)  # copied: it looks for headers next to itself
  endif()
endif()

set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32 ${stage})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
