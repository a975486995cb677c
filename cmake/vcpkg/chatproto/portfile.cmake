# An overlay port that takes the sources from around it: vcpkg install chatproto --overlay-ports=cmake/vcpkg
# In a registry, vcpkg_from_github() with a release replaces the next line.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

set(VCPKG_BUILD_TYPE release)  # header-only
vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        -DCHATPROTO_BUILD_TESTS=OFF
        -DCHATPROTO_BUILD_EXAMPLES=OFF
        -DCHATPROTO_BUILD_CONFORMANCE=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/chatproto)
vcpkg_fixup_pkgconfig()
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
